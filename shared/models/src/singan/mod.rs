//! SinGAN: lesions from one exemplar image each (equation 13).
