"""What learners need beside Gymnasium's own interface: adapters, exporters and a small policy.

Each module needs the package that it is for, an optional dependency; none is imported before it is used.
"""
