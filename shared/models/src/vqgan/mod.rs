//! HiResMed-VQGAN: backgrounds through a learned codebook (sections 2.2 and 2.3 of the paper).
