"""The answer about one image: in words, and as one page of HTML."""
