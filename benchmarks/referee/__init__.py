"""The parts of quality.py: data sets, systems, the measuring of their models, and the table."""
