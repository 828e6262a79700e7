"""DigGAN: Discriminator gradIent Gap Regularization for GAN Training with Limited Data (Fang, Sun, Schwing 2022)."""
