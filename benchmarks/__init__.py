"""How fast Poolgrad is beside its peers, and beside the memory: ``make bench``."""
