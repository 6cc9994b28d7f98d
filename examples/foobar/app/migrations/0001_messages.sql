-- uid is the sender's key, by which a message that is sent twice is known.
CREATE TABLE IF NOT EXISTS messages (
  id      BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  uid     VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  author  VARCHAR(60) NOT NULL,
  text    VARCHAR(2000) NOT NULL,
  server  VARCHAR(64) NOT NULL,
  created DATETIME(6) NOT NULL,
  UNIQUE KEY uid (uid)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci
