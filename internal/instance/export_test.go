package instance

// Hosts are those that a database's URL leads to.
var Hosts = hosts
