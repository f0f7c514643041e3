"""A comparison as one HTML file: looks like `report.html` and shares its style, script and drawing."""
