"""The page where people browse an audit and try the reference model, served here or from a Space of the Hub."""
