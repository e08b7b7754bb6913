"""Other networks than the lab report's, and building a network from the name of its class."""
