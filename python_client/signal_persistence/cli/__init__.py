"""The command line `signals`: thin over what the package offers; needs the extra `cli`."""
