"""Test data: read and checked, parted into what chooses and what judges, and as much of it as training has time for."""
