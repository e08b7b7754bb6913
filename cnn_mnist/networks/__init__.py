"""Other networks than the report's, and building a network from the name of its class."""
