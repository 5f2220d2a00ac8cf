"""The other servers: each pools 2x2/2, written as its documentation tells.

Each module is run in an environment of its own, and listens on the ports that it is given.
"""
