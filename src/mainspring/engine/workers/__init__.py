"""Where attempts run: the zygote, the workers, what they say to the driver, and what they read unseen."""
