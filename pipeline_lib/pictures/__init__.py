"""Pictures that a user brings: files, folders and tars of them."""
