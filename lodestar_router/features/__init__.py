"""What the model sees: named, with units and a schema version. Pure."""
