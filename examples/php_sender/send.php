<?php

declare(strict_types=1);

/*
 * Sends a message to a user from PHP, and says what became of it:
 *
 *     USERWIRE_KEY=… php send.php http://127.0.0.1:8765 alice '{"order": 7}'
 */

require __DIR__ . '/../../clients/php/Userwire.php'; // beside your own program: require 'Userwire.php'

[, $url, $user, $json] = $argv;
$userwire = new Userwire($url, getenv('USERWIRE_KEY') ?: null);

try {
    // Objects stay objects: an empty PHP array would be sent as a list.
    $sent = $userwire->send($user, json_decode($json, false, 512, JSON_THROW_ON_ERROR));
    $reached = $sent['sockets'] ?? $sent['nodes'];
    echo $reached > 0 ? "sent to $reached sockets\n" : "$user is offline: it is kept for them\n";
} catch (UserwireRefused $error) {
    fwrite(STDERR, "It will not be taken: {$error->getMessage()}\n"); // mend the program
    exit(1);
} catch (UserwireUnavailable $error) {
    fwrite(STDERR, "Try again later: {$error->getMessage()}\n"); // put it into a queue
    exit(75);
}
