"""The methods of the comparison, a file each."""
