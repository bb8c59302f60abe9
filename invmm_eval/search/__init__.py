"""The measure: the search for one image's noise distribution."""
