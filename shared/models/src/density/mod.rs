//! A density prior of lesion positions, fitted to annotations, for use where no detector is given (equation 14).
