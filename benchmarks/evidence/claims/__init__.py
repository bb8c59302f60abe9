"""The claims, one module each: ``claim(cases, pictures)`` tests it and draws its figure."""
