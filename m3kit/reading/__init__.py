"""Any file, any frequent layout, to rows with their lines: for training data and test data alike."""
