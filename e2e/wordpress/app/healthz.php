<?php
// What `php -S` asks first for every request. Health is this process's alone:
// it does not depend on the database.
if ($_SERVER['REQUEST_URI'] === '/healthz') {
	echo "ok\n";
	return true;
}
return false;
