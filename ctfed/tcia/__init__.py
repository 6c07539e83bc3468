"""Public collections of the Cancer Imaging Archive: choose, download, map clinical tables, cut into virtual centres.

Choosing works offline, on the index of the NCI Imaging Data Commons that the package ``idc-index-data`` carries.
"""
