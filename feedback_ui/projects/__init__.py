"""Several projects at one address: a front that signs people in and passes their requests on to a process for each project."""
