"""Private helpers of all packages: batch axes, files, optional packages, keys and shapes."""
