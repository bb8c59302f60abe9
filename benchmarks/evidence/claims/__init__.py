"""The claims, one module each: ``claim(cases, procedures, pictures)`` tests it and draws its figure."""
