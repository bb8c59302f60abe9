"""What counts and curves say."""
