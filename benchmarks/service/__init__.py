"""How fast the service is beside other servers of models: ``make bench-service``."""
