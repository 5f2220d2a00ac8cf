"""stub."""
def write(results, output): pass
def summary(results): return str(results["wrong"]) + str(results["missing"])
