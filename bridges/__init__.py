"""The same simulator for other programs: protocol, server and clients. Empty until the bridges land."""
