"""The hooks, the host that finds plugins, and a template for new ones."""
