"""InvMM in other people's evaluation harnesses."""
