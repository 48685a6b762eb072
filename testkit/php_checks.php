<?php

declare(strict_types=1);

/*
 * What the PHP sender does with a real service, and with a server that misbehaves. What became of each check is a line
 * of JSON.
 *
 *     php php_checks.php <name of this run> http://127.0.0.1:8765 <key> http://127.0.0.1:<port of the server that misbehaves> \
 *       https://localhost:<port of a service with TLS> <PEM file of its authority> <PEM file of another>
 */

require __DIR__ . '/../clients/php/Userwire.php';

[, $tag, $url, $key, $scripted, $secure, $ca, $otherCa] = $argv;
$userwire = new Userwire($url, $key);

function same($expected, $actual): void
{
    if ($expected !== $actual) {
        throw new Exception('expected ' . json_encode($expected) . ', and got ' . json_encode($actual));
    }
}

function thrown(string $class, callable $call): Throwable
{
    try {
        $call();
    } catch (Throwable $error) {
        if ($error instanceof $class) {
            return $error;
        }
        throw $error;
    }
    throw new Exception("$class was not thrown");
}

$checks = [
    'every call' => function () use ($userwire, $tag): void {
        $sent = $userwire->send("nobody-$tag", ['order' => 7, 'é' => "ü/\u{1F600}", 'price' => 1.0], ['ttl' => 60]);
        same([1, 0, true], [$sent['seq'], $sent['sockets'], $sent['stored']]);
        same(2, $userwire->sendBytes("nobody-$tag", "\0\xff")['seq']);
        same(0, $userwire->online("nobody-$tag"));
        same(['a' => 0, 'b' => 0], $userwire->online(['a', 'b']));
        $results = $userwire->batch([['to' => "batch-$tag", 'data' => new stdClass()], ['to' => ['a'], 'text' => 'x']]);
        same([1, ['a' => 0]], [$results[0]['seq'], $results[1]['users']]);
        foreach (['00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', "a\r\nb: c", ''] as $i => $parent) {
            same($i + 1, $userwire->send("traced-$tag", 1, ['traceparent' => $parent])['seq']);
            same($i + 1, $userwire->batch([['to' => "traced-batch-$tag", 'data' => 1]], null, $parent)[0]['seq']);
        }
        same(0, $userwire->kick("nobody-$tag", 4403, 'go & rest'));
        same('ws:', substr($userwire->ticket("nobody-$tag", 5)['url'], 0, 3));
        same(['jti' => 'j'], $userwire->revoke("nobody-$tag", 'j'));
        same(true, isset($userwire->revoke("nobody-$tag")['issued_before']));
        same(1, $userwire->send("é/ü?#%+$tag", [])['seq']);
    },
    'to everybody, what is kept, and one connection of several' => function () use ($userwire, $tag): void {
        $options = ['ttl' => 60, 'idempotencyKey' => "all-$tag"];
        $sent = $userwire->broadcast(['sale' => true], $options);
        same([1, 0], [$sent['nodes'], $sent['sockets']]);
        same($sent['seq'], $userwire->broadcast(['sale' => true], $options)['seq']);
        thrown(InvalidArgumentException::class, fn () => $userwire->broadcast(1, ['expectOnline' => true]));
        $userwire->send("kept-$tag", ['order' => 1]);
        $userwire->sendBytes("kept-$tag", "\0\xff");
        $kept = $userwire->history("kept-$tag");
        same([1, 2, ['order' => 1]], [$kept['first'], $kept['last'], $kept['items'][0]['data']]);
        same("\0\xff", base64_decode($kept['items'][1]['data']));
        same([$kept['items'][1]], $userwire->history("kept-$tag", "{$kept['epoch']}.1", 1)['items']);
        same('epoch_changed', thrown(UserwireRefused::class, fn () => $userwire->history("kept-$tag", 'other.1'))->problem);
        same([[], 0, 0], array_values($userwire->connections("kept-$tag")));
        $gone = thrown(UserwireRefused::class, fn () => $userwire->closeConnection("kept-$tag", 'a/b?', 4403, 'go & rest'));
        same('connection_not_found', $gone->problem);
        thrown(InvalidArgumentException::class, fn () => $userwire->closeConnection("kept-$tag", '..'));
        same(1, preg_match('~^http://.*/v1/events\?ticket=~', $userwire->ticket("kept-$tag", 5, true)['events']));
    },
    'a user who is offline' => function () use ($userwire): void {
        $error = thrown(UserwireRefused::class, fn () => $userwire->send('away', 1, ['expectOnline' => true]));
        same([404, 'user_offline'], [$error->status, $error->problem]);
    },
    'a message that is told when nobody sees it' => function () use ($userwire): void {
        // This service tells nobody: so it is seen that the option arrives.
        $error = thrown(UserwireRefused::class, fn () => $userwire->send('away', 1, ['unacked' => 0]));
        same(true, strpos($error->getMessage(), 'USERWIRE_WEBHOOK_EVENTS') !== false);
    },
    'groups, by every call' => function () use ($userwire, $tag): void {
        [$groups, $name] = [$userwire->groups, "php/7é-$tag"];
        $made = $groups->put($name, ["gina-$tag", "hal-$tag"], 0);
        same([2, 0, 2], [$made['added'], $made['removed'], $made['users']]);
        same(3, $groups->add($name, ["ida-$tag"])['users']);
        same(1, $groups->remove($name, ["hal-$tag"])['removed']);
        $error = thrown(UserwireRefused::class, fn () => $groups->put($name, [], $made['version']));
        same([412, 'group_changed'], [$error->status, $error->problem]);
        $userwire->send("ida-$tag", 'seen');
        $sent = $userwire->sendToGroup($name, ['order' => 7], ['idempotencyKey' => "group-$tag"]);
        same([1, 0, 0, 1, 1], [$sent['users'], $sent['online'], $sent['sockets'], $sent['stored'], $sent['unknown']]);
        same($sent, $userwire->sendToGroup($name, ['order' => 7], ['idempotencyKey' => "group-$tag"]));
        same(0, $userwire->sendToGroup($name, 1, ['except' => "ida-$tag", 'store' => 'online', 'ttl' => 60])['users']);
        same(2, $userwire->sendToGroup($name, 1, ['expectOnline' => true])['offline']);
        same([2, 0], [$groups->get($name)['users'], $groups->get($name)['online']]);
        same(['items' => [['user' => "gina-$tag", 'sockets' => 0]], 'next' => "gina-$tag"], $groups->members($name, null, 1));
        same([['user' => "ida-$tag", 'sockets' => 0]], $groups->members($name, "gina-$tag")['items']);
        same([[$name], [$name], []], [$groups->of("ida-$tag"), $groups->leaveAll("ida-$tag"), $groups->of("ida-$tag")]);
        same(1, $groups->delete($name));
        foreach (['get', 'members', 'delete'] as $call) {
            same('group_not_found', thrown(UserwireRefused::class, fn () => $groups->$call($name))->problem);
        }
        same('group_not_found', thrown(UserwireRefused::class, fn () => $userwire->sendToGroup($name, 1))->problem);
        thrown(InvalidArgumentException::class, fn () => $groups->put('..', []));
        thrown(InvalidArgumentException::class, fn () => $userwire->send('a', 1, ['except' => 'b']));
    },
    'a receipt that nobody gives' => function () use ($userwire): void {
        same(0, $userwire->send('away', 1, ['waitAck' => 0.05])['acked'] ?? 0);
    },
    'keys of idempotency' => function () use ($userwire, $tag): void {
        $options = ['idempotencyKey' => "once-$tag"];
        $first = $userwire->send("once-$tag", 1, $options);
        same($first, $userwire->send("once-$tag", 1, $options));
        $error = thrown(UserwireRefused::class, fn () => $userwire->send("once-$tag", 2, $options));
        same('idempotency_conflict', $error->problem);
        thrown(InvalidArgumentException::class, fn () => $userwire->send('a', 1, ['idempotencyKey' => "two words"]));
    },
    // pusher-http-php#89: json_encode gave false, which was sent.
    'data that is no JSON' => function () use ($userwire): void {
        foreach (["\xff", NAN, ['a' => INF], fopen('php://memory', 'r')] as $data) {
            $error = thrown(InvalidArgumentException::class, fn () => $userwire->send('alice', $data));
            same(0, strpos($error->getMessage(), 'The data is not JSON: '));
        }
    },
    'what can never work' => function () use ($userwire): void {
        foreach (['push.example.com', 'ftp://host', '', 'http://', 'http://a:b@host'] as $address) {
            thrown(InvalidArgumentException::class, fn () => new Userwire($address));
        }
        foreach (["a b", "a\r\nb", "é"] as $wrong) {
            thrown(InvalidArgumentException::class, fn () => new Userwire('http://host', $wrong));
        }
        foreach (['', '.', '..'] as $user) {
            thrown(InvalidArgumentException::class, fn () => $userwire->online($user));
        }
        thrown(InvalidArgumentException::class, fn () => $userwire->send('a', 1, ['expect' => 'online']));
        thrown(InvalidArgumentException::class, fn () => new Userwire('http://host', null, ['time' => 1]));
    },
    'a key with a new line after it, and one that is wrong' => function () use ($url, $key): void {
        same(0, (new Userwire($url, "$key\n"))->online('nobody'));
        $error = thrown(UserwireRefused::class, fn () => (new Userwire($url, 'wrong'))->online('nobody'));
        same([401, 'unauthorized'], [$error->status, $error->problem]);
    },
    'what fails is tried again' => function () use ($scripted): void {
        $sent = (new Userwire("$scripted/fails"))->send('alice', 1);
        same(1, $sent['sockets']);
    },
    // ably-pubsub-php#62: a server that takes the call and says nothing.
    'what goes on failing is said' => function () use ($scripted): void {
        $once = ['retries' => 0, 'timeout' => 0.2];
        $error = thrown(UserwireUnavailable::class, fn () => (new Userwire("$scripted/silent", null, $once))->online('a'));
        same(1, preg_match('/failed 1 times: .+/', $error->getMessage()));
        $startedAt = microtime(true);
        $error = thrown(UserwireUnavailable::class, fn () => (new Userwire("$scripted/drips", null, $once))->online('a'));
        same(true, microtime(true) - $startedAt < 2);
        $error = thrown(UserwireUnavailable::class, fn () => (new Userwire("$scripted/busy", null, $once))->online('a'));
        same(1, preg_match('/Redis is away \(503 broker_unavailable\)/', $error->getMessage()));
        thrown(UserwireUnavailable::class, fn () => (new Userwire('http://127.0.0.1:1', null, $once))->online('a'));
        $error = thrown(UserwireRefused::class, fn () => (new Userwire("$scripted/redirect", null, $once))->online('a'));
        same(302, $error->status);
    },
    'TLS with an authority of its own, and none other' => function () use ($secure, $key, $ca, $otherCa): void {
        same(0, (new Userwire($secure, $key, ['ca' => $ca]))->send('nobody', 1)['sockets']);
        // Neither is tried again.
        foreach ([['retries' => 99], ['retries' => 99, 'ca' => $otherCa]] as $options) {
            $error = thrown(UserwireUnavailable::class, fn () => (new Userwire($secure, $key, $options))->send('nobody', 1));
            same(1, preg_match('/not trusted; .* give its PEM file as the option "ca": .*certificate/s', $error->getMessage()));
        }
        $error = thrown(InvalidArgumentException::class, fn () => new Userwire($secure, $key, ['ca' => '/no/such.pem']));
        same(1, preg_match('/must name a PEM file/', $error->getMessage()));
    },
    'proxies of the environment are not used' => function () use ($url, $key): void {
        foreach (['http_proxy', 'HTTP_PROXY', 'https_proxy', 'all_proxy', 'ALL_PROXY'] as $name) {
            putenv("$name=http://127.0.0.1:1");
        }
        same(0, (new Userwire($url, $key))->online('nobody'));
    },
];

foreach ($checks as $name => $check) {
    try {
        $check();
        echo json_encode(['check' => "$name, by $tag"]), "\n";
    } catch (Throwable $error) {
        echo json_encode(['check' => "$name, by $tag", 'fault' => (string) $error], JSON_INVALID_UTF8_SUBSTITUTE), "\n";
    }
}
