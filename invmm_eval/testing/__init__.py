"""The kit for those who write plugins: small real models to try a backbone on, and fixtures that save them."""
