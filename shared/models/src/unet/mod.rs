//! U-Net: where a lesion must not be (equation 15).
