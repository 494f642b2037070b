"""The web edge: the intake, the API and the process's health over HTTP; it knows no broker."""
