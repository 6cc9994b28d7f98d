<?php
// WordPress's settings: the database is where trivet says, and the balancer
// has opened the visitor's encryption.
$database = parse_url(getenv('DATABASE_URL'));
define('DB_NAME', ltrim($database['path'], '/'));
define('DB_USER', $database['user']);
define('DB_PASSWORD', urldecode($database['pass']));
define('DB_HOST', $database['host'] . ':' . $database['port']);
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
require __DIR__ . '/salts.php';
$_SERVER['HTTPS'] = 'on';
define('WP_HOME', 'https://www.foobar.com');
define('WP_SITEURL', 'https://www.foobar.com');
define('AUTOMATIC_UPDATER_DISABLED', true);
define('WP_HTTP_BLOCK_EXTERNAL', true);
define('DISABLE_WP_CRON', true);
define('DISALLOW_FILE_MODS', true);
$table_prefix = 'wp_';
if (!defined('ABSPATH')) {
	define('ABSPATH', __DIR__ . '/');
}
require_once ABSPATH . 'wp-settings.php';
