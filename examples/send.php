<?php
// Sends a message by the Redis function: php send.php alice '{"order":7}'
[, $user, $payload] = $argv;
$url = parse_url(getenv('REDIS_URL') ?: 'redis://127.0.0.1:6379');
$redis = new Redis();
$redis->connect($url['host'], $url['port'] ?? 6379);
if (isset($url['pass'])) {
    $redis->auth($url['pass']);
}
// Options follow the payload: 'ttl', '60', 'key', 'order-7', 'id', 'o7', 'expect', 'online'
try {
    $reply = $redis->rawCommand('FCALL', 'userwire_send', '1', "userwire:{{$user}}", $payload);
    $fault = $redis->getLastError();
} catch (RedisException $exception) {
    $fault = $exception->getMessage();
}
if ($fault !== null) {
    fwrite(STDERR, "not sent: $fault\n");
    exit(1);
}
[$sockets, $seq, $epoch, $id] = $reply;
echo "sent to $sockets sockets, number $seq of $epoch: $id\n";
