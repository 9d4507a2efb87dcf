"""The releases that the demo deploys: each folder is copied to be a release directory."""
