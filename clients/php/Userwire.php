<?php

declare(strict_types=1);

/**
 * Sends to users through Userwire's HTTP API, from PHP 7.4 and newer. One file without dependencies: copy it. It uses
 * the extension curl where that is loaded, and keeps the connection then; else PHP's own streams.
 *
 *     $userwire = new Userwire('https://push.example.com', getenv('USERWIRE_KEY'));
 *     $sent = $userwire->send('alice', ['order' => 7]);
 *     echo $sent['sockets'];
 *
 * What fails on the way, or is answered with 429 or 5xx, is tried again. Messages carry an idempotency key, so that
 * they are sent once all the same. Proxies in the environment are not used, redirects are not followed.
 *
 * Answers are the fields of the HTTP API as arrays. Every call throws
 *   InvalidArgumentException  for what can never work: data that is no JSON, such as a string that is no UTF-8;
 *   UserwireRefused           when the service says no, and would again;
 *   UserwireUnavailable       when it can't be reached or is not ready, as often as it was tried.
 */
final class Userwire
{
    private const FIRST_WAIT_S = 0.5;
    private const LONGEST_WAIT_S = 30.0;
    private const SEND_OPTIONS = ['ttl', 'expectOnline', 'waitAck', 'unacked', 'idempotencyKey', 'traceparent'];

    /** Who is in which group. */
    public UserwireGroups $groups;
    private string $url;
    /** @var string[] */
    private array $headers = ['Accept: application/json', 'User-Agent: userwire-php'];
    private float $timeout;
    private int $retries;
    /** PEM file; null: the authorities that PHP knows. */
    private ?string $ca;
    /** @var resource|\CurlHandle|null */
    private $curl = null;
    /** Process that the connection belongs to. */
    private int $pid = 0;

    /**
     * @param string      $url     `https://host`, or with the path that a proxy has put before `/v1`.
     * @param string|null $key     An API key. A service in open mode needs none.
     * @param array       $options `timeout`: of one try, in seconds (10); `retries`: tries after the first (3); `ca`:
     *   PEM file with the authority that signed the service's certificate, where PHP's own do not know it.
     */
    public function __construct(string $url, ?string $key = null, array $options = [])
    {
        $parts = parse_url($url);
        if (!in_array($parts['scheme'] ?? '', ['http', 'https'], true) || !isset($parts['host']) || isset($parts['user'])) {
            throw new InvalidArgumentException("Can't use \"$url\": give an address such as \"https://push.example.com\"");
        }
        self::onlyKnown($options, ['timeout', 'retries', 'ca']);
        $this->ca = $options['ca'] ?? null;
        if ($this->ca !== null && strpos((string) @file_get_contents($this->ca), '-----BEGIN CERTIFICATE-----') === false) {
            throw new InvalidArgumentException("The option \"ca\" must name a PEM file of certificates, and \"$this->ca\" is none");
        }
        $this->url = rtrim($url, '/');
        $key = trim($key ?? ''); // keys come from files, which end with a new line
        if ($key !== '') {
            if (preg_match('/^[\x21-\x7e]+$/D', $key) !== 1) {
                throw new InvalidArgumentException('The key must be printable ASCII without spaces, as "userwire key new" wrote it');
            }
            $this->headers[] = "Authorization: Bearer $key";
        }
        $this->timeout = (float) ($options['timeout'] ?? 10);
        $this->retries = (int) ($options['retries'] ?? 3);
        $this->groups = new UserwireGroups(function (string $method, string $path, ?array $body, array $headers): array {
            return $body === null
                ? $this->call($method, $path)
                : $this->call($method, $path, self::json($body), array_merge(['Content-Type: application/json'], $headers));
        });
    }

    /**
     * Sends a message.
     *
     * @param mixed $data    Any JSON value. An empty PHP array is an empty list: give `new stdClass()` for `{}`.
     * @param array $options `ttl`: seconds that it is kept for a user who is away; `expectOnline`: only send to a user
     *   who is online, else UserwireRefused with the code `user_offline`; `waitAck`: seconds to wait for clients to
     *   confirm it; `unacked`: have the webhook `message.unacked` sent when no client has confirmed it after so many
     *   seconds, 0: at once, when the user is offline; `idempotencyKey`: sends with the same key within five minutes are one;
     *   `traceparent`: the span that the send is a part of (W3C Trace Context), which clients get with the message; what is
     *   none is left out.
     * @return array `id`, `epoch`, `seq`, and `sockets` (`nodes` with shared subscriptions); `stored` when the user is
     *   offline; `acked` with `waitAck`.
     */
    public function send(string $user, $data, array $options = []): array
    {
        return $this->sendBody(self::userPath($user) . '/messages', self::json($data), 'application/json', $options);
    }

    /** Sends bytes, which clients get as such. Options and answer are those of `send`. */
    public function sendBytes(string $user, string $bytes, array $options = []): array
    {
        return $this->sendBody(self::userPath($user) . '/messages', $bytes, 'application/octet-stream', $options);
    }

    /**
     * Sends a message to every user of a group.
     *
     * @param mixed $data    As for `send`.
     * @param array $options Those of `send`, where `expectOnline` leaves out who is offline; and `store`: `online` keeps
     *   no copy for users who are offline; `except`: a user of the group who does not get it.
     * @return array `id`, and how many: `users`, `online`, `sockets` (`nodes` with shared subscriptions), `stored`,
     *   `unknown`; `offline` with `expectOnline`, `acked` with `waitAck`.
     */
    public function sendToGroup(string $group, $data, array $options = []): array
    {
        $known = [...self::SEND_OPTIONS, 'store', 'except'];
        return $this->sendBody(self::groupPath($group) . '/messages', self::json($data), 'application/json', $options, $known);
    }

    /**
     * Sends a message to everybody who is connected, to any node. The key needs the scope `broadcast`, and all users.
     *
     * @param mixed $data    As for `send`.
     * @param array $options `ttl`, `idempotencyKey` and `traceparent`, as for `send`.
     * @return array `id`, `seq`, `epoch`; `nodes` that got it, and the `sockets` that these gave it to, or, when not all
     *   nodes have said theirs in time, how many were `heard`.
     */
    public function broadcast($data, array $options = []): array
    {
        $known = ['ttl', 'idempotencyKey', 'traceparent'];
        return $this->sendBody('/v1/broadcast', self::json($data), 'application/json', $options, $known);
    }

    /**
     * Sends many messages in one call.
     *
     * @param array $items Each `['to' => 'alice', 'data' => …]`; `to` may be a list, and `id`, `ttl` and
     *   `'expect' => 'online'` may stand beside. In place of `data` there may be `text`, or `base64` for bytes.
     * @return array One result per item, in order; one with `error` was not sent.
     */
    public function batch(array $items, ?string $idempotencyKey = null, ?string $traceparent = null): array
    {
        $headers = ['Content-Type: application/json', self::idempotency($idempotencyKey), ...self::trace($traceparent)];
        return $this->call('POST', '/v1/messages', self::json(['items' => array_values($items)]), $headers)['results'];
    }

    /**
     * How many sockets a user has, or each of several; nodes, with shared subscriptions. 0 is offline.
     *
     * @param string|string[] $user
     * @return int|array<string, int>
     */
    public function online($user)
    {
        if (is_array($user)) {
            return $this->post('/v1/users/online', ['users' => array_values($user)]);
        }
        $answer = $this->call('GET', self::userPath($user));
        return $answer['sockets'] ?? $answer['nodes'] ?? 0;
    }

    /**
     * What is kept of a user's messages, oldest first.
     *
     * @param int|string|null $after Number, or position, to begin after.
     * @param int|null $limit At most so many; 100 if not given.
     * @return array `epoch`; `first`: the number of the first item; `last`: that of the newest message ever sent; and
     *   `items`, each with `seq`, `id`, `ts` and `data`, which is in base64 where `enc` says so.
     * @throws UserwireRefused with the code `epoch_changed` when the position is of a history that is gone.
     */
    public function history(string $user, $after = null, ?int $limit = null): array
    {
        return $this->call('GET', self::withQuery(self::userPath($user) . '/messages', ['after' => $after, 'limit' => $limit]));
    }

    /**
     * A ticket, which lets one connection in as this user within `$ttl` seconds; with `$reuse` any number of them, as a
     * browser's EventSource needs it.
     *
     * @return array `ticket`, and where to connect with it: `url`, and `events` for server-sent events.
     */
    public function ticket(string $user, ?int $ttl = null, bool $reuse = false): array
    {
        $given = array_filter(['ttl' => $ttl, 'reuse' => $reuse ?: null], fn ($value) => $value !== null);
        return $this->post('/v1/tickets', ['user' => $user] + $given);
    }

    /** Closes the user's sockets everywhere. Returns how many; with shared subscriptions, on how many nodes. */
    public function kick(string $user, ?int $code = null, ?string $why = null): int
    {
        $path = self::userPath($user) . '/connections';
        $answer = $this->call('DELETE', self::withQuery($path, ['code' => $code, 'why' => $why]));
        return $answer['closed'] ?? $answer['nodes'] ?? 0;
    }

    /** Every connection of a user, on all nodes: `items`, how many were asked as `sockets` or `nodes`, and `unanswered`. */
    public function connections(string $user): array
    {
        return $this->call('GET', self::userPath($user) . '/connections');
    }

    /**
     * Closes one connection of a user, by its id, as `kick` does all of them.
     *
     * @throws UserwireRefused with the code `connection_not_found` when the user has none of this id.
     */
    public function closeConnection(string $user, string $conn, ?int $code = null, ?string $why = null): void
    {
        $path = self::userPath($user) . '/connections/' . self::encoded($conn);
        $this->call('DELETE', self::withQuery($path, ['code' => $code, 'why' => $why]));
    }

    /**
     * Lets the user's tokens in no more, and closes their sockets: all until now, one by its `jti`, or all that were
     * made before a time in Unix seconds.
     */
    public function revoke(string $user, ?string $jti = null, ?int $issuedBefore = null): array
    {
        $body = array_filter(['jti' => $jti, 'issued_before' => $issuedBefore], fn ($value) => $value !== null);
        return $this->post(self::userPath($user) . '/revocations', (object) $body);
    }

    /**
     * Checks that a webhook is from the service, and reads it.
     *
     * @param array<string, string> $headers Of the request, in any case of letters, as `getallheaders()` has them.
     * @param string $body As it came: `file_get_contents('php://input')`.
     * @param string|string[] $secrets `whsec_…`, one or several.
     * @return array{type: string, timestamp: string, data: array}
     * @throws RuntimeException when no signature fits, or its time is more than `$toleranceS` seconds from now.
     */
    public static function verifyWebhook(array $headers, string $body, $secrets, int $toleranceS = 300): array
    {
        $lower = array_change_key_case($headers);
        foreach (['webhook-id', 'webhook-timestamp', 'webhook-signature'] as $name) {
            if (!isset($lower[$name])) {
                throw new RuntimeException("The header $name is missing");
            }
        }
        $timestamp = $lower['webhook-timestamp'];
        if (preg_match('/^\d{1,15}$/D', $timestamp) !== 1 || abs(time() - (int) $timestamp) > $toleranceS) {
            throw new RuntimeException(
                "The webhook is from another time: webhook-timestamp is not within $toleranceS s of now"
            );
        }
        foreach ((array) $secrets as $secret) {
            $key = strpos($secret, 'whsec_') === 0 ? base64_decode(substr($secret, 6), true) : false;
            if ($key === false) {
                throw new InvalidArgumentException('A secret must be whsec_ and base64');
            }
            $digest = hash_hmac('sha256', $lower['webhook-id'] . ".$timestamp.$body", $key, true);
            foreach (explode(' ', $lower['webhook-signature']) as $signature) {
                if (hash_equals('v1,' . base64_encode($digest), $signature)) {
                    return json_decode($body, true, 512, JSON_THROW_ON_ERROR);
                }
            }
        }
        throw new RuntimeException('No signature of the webhook fits a secret');
    }

    /** @param string[] $known Which options there are. */
    private function sendBody(string $path, string $body, string $type, array $options, array $known = self::SEND_OPTIONS): array
    {
        self::onlyKnown($options, $known);
        $waitAck = $options['waitAck'] ?? null;
        $address = self::withQuery($path, [
            'ttl' => $options['ttl'] ?? null,
            'unacked' => $options['unacked'] ?? null,
            'expect' => ($options['expectOnline'] ?? false) ? 'online' : null,
            'wait' => $waitAck === null ? null : 'ack',
            'timeout' => $waitAck === null ? null : (int) round($waitAck * 1000),
            'store' => $options['store'] ?? null,
            'except' => $options['except'] ?? null,
        ]);
        $headers = [
            "Content-Type: $type",
            self::idempotency($options['idempotencyKey'] ?? null),
            ...self::trace($options['traceparent'] ?? null),
        ];
        return $this->call('POST', $address, $body, $headers, (float) ($waitAck ?? 0));
    }

    /** @param mixed $value */
    private function post(string $path, $value): array
    {
        return $this->call('POST', $path, self::json($value), ['Content-Type: application/json']);
    }

    private function call(string $method, string $path, string $body = '', array $headers = [], float $more = 0): array
    {
        for ($attempt = 0;; $attempt++) {
            $wait = min(self::LONGEST_WAIT_S, self::FIRST_WAIT_S * 2 ** $attempt) * mt_rand() / mt_getrandmax();
            [$status, $text, $retryAfter, $trouble] = $this->request($method, $path, $body, $headers, $this->timeout + $more);
            if ($status >= 200 && $status < 300) {
                $answer = json_decode($text, true);
                if (is_array($answer)) {
                    return $answer;
                }
                $trouble = 'the answer is no JSON, or was cut off';
            } elseif ($status !== 0) {
                $refusal = self::refusal($status, $text);
                if ($status < 500 && !in_array($status, [408, 425, 429], true)) {
                    throw $refusal;
                }
                $trouble = $refusal->getMessage();
                $wait = $retryAfter === null ? $wait : min(self::LONGEST_WAIT_S, $retryAfter);
            }
            if ($attempt >= $this->retries) {
                throw new UserwireUnavailable("$method $path failed " . ($attempt + 1) . " times: $trouble");
            }
            usleep((int) ($wait * 1e6));
        }
    }

    /** One try. @return array{int, string, ?float, string} Status, 0 when there was no answer; body; Retry-After; why. */
    private function request(string $method, string $path, string $body, array $headers, float $timeout): array
    {
        $headers = array_merge($this->headers, $headers);
        return extension_loaded('curl')
            ? $this->byCurl($method, $path, $body, $headers, $timeout)
            : $this->byStream($method, $path, $body, $headers, $timeout);
    }

    private function byCurl(string $method, string $path, string $body, array $headers, float $timeout): array
    {
        // After a fork the connection is the parent's: two processes would read each other's answers.
        if ($this->curl === null || $this->pid !== getmypid()) {
            $this->curl = curl_init();
            $this->pid = getmypid();
        }
        $retryAfter = null;
        curl_reset($this->curl);
        curl_setopt_array($this->curl, [
            CURLOPT_URL => $this->url . $path,
            CURLOPT_CUSTOMREQUEST => $method,
            // Without an empty Expect, larger bodies wait a second for leave that nobody gives.
            CURLOPT_HTTPHEADER => array_merge($headers, ['Expect:']),
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_TIMEOUT_MS => (int) ($timeout * 1000),
            CURLOPT_NOSIGNAL => true,
            CURLOPT_PROXY => '',
            CURLOPT_PATH_AS_IS => true,
            CURLOPT_HEADERFUNCTION => function ($curl, string $line) use (&$retryAfter): int {
                $retryAfter = self::retryAfter($line) ?? $retryAfter;
                return strlen($line);
            },
        ]);
        if (self::hasBody($method)) {
            curl_setopt($this->curl, CURLOPT_POSTFIELDS, $body);
        }
        if ($this->ca !== null) {
            curl_setopt($this->curl, CURLOPT_CAINFO, $this->ca);
        }
        $text = curl_exec($this->curl);
        // By the host name, before libcurl 7.62, and by the authority.
        if (in_array(curl_errno($this->curl), [51, 60], true)) {
            throw self::untrusted(curl_error($this->curl));
        }
        if ($text === false) {
            return [0, '', null, curl_error($this->curl)];
        }
        return [curl_getinfo($this->curl, CURLINFO_RESPONSE_CODE), $text, $retryAfter, ''];
    }

    private function byStream(string $method, string $path, string $body, array $headers, float $timeout): array
    {
        $context = stream_context_create(['http' => [
            'method' => $method,
            // PHP's streams read until the connection ends.
            'header' => array_merge($headers, ['Connection: close']),
            'content' => self::hasBody($method) ? $body : null,
            'protocol_version' => 1.1,
            'timeout' => $timeout,
            'ignore_errors' => true,
            'follow_location' => 0,
        ], 'ssl' => $this->ca === null ? [] : ['cafile' => $this->ca]]);
        // Why comes before that it failed.
        $troubles = [];
        set_error_handler(function (int $level, string $message) use (&$troubles): bool {
            $troubles[] = $message;
            return true;
        });
        try {
            $stream = fopen($this->url . $path, 'r', false, $context);
        } finally {
            restore_error_handler();
        }
        if ($stream === false) {
            $why = implode('; ', $troubles);
            if (stripos($why, 'certificate') !== false) {
                throw self::untrusted($why);
            }
            return [0, '', null, $why];
        }
        $meta = stream_get_meta_data($stream);
        $text = self::whole($stream, $timeout);
        fclose($stream);
        if ($text === null) {
            return [0, '', null, "no whole answer within $timeout s"];
        }
        $retryAfter = null;
        foreach ($meta['wrapper_data'] as $line) {
            $retryAfter = self::retryAfter($line) ?? $retryAfter;
        }
        return [(int) (explode(' ', $meta['wrapper_data'][0])[1] ?? 0), $text, $retryAfter, ''];
    }

    /** The body; null when it is not there in time. Of one that comes in ever smaller pieces no single piece is late. */
    private static function whole($stream, float $timeout): ?string
    {
        $endsAt = microtime(true) + $timeout;
        for ($text = ''; !feof($stream); $text .= $piece) {
            $left = (int) (($endsAt - microtime(true)) * 1e6);
            if ($left <= 0 || !stream_set_timeout($stream, intdiv($left, 1000000), $left % 1000000)) {
                return null;
            }
            $piece = fread($stream, 65536);
            if ($piece === false || stream_get_meta_data($stream)['timed_out']) {
                return null;
            }
        }
        return $text;
    }

    /** What a line of the header says, if it is that one. */
    private static function retryAfter(string $line): ?float
    {
        return preg_match('/^retry-after:\s*(\d+)\s*$/i', $line, $found) === 1 ? (float) $found[1] : null;
    }

    private static function refusal(int $status, string $text): UserwireRefused
    {
        $problem = json_decode($text, true);
        return isset($problem['code'], $problem['detail'])
            ? new UserwireRefused($status, $problem['code'], $problem['detail'])
            : new UserwireRefused($status, '', 'Something that is not Userwire has answered: look at the address, and at proxies');
    }

    /** Trying again is no use. */
    private static function untrusted(string $why): UserwireUnavailable
    {
        return new UserwireUnavailable(
            'The certificate of the service is not trusted; for an authority of your own give its PEM file as the option ' .
            "\"ca\": $why"
        );
    }

    /** @param mixed $value */
    private static function json($value): string
    {
        try {
            return json_encode(
                $value,
                JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_PRESERVE_ZERO_FRACTION
            );
        } catch (JsonException $error) {
            throw new InvalidArgumentException("The data is not JSON: {$error->getMessage()}", 0, $error);
        }
    }

    private static function hasBody(string $method): bool
    {
        return in_array($method, ['POST', 'PUT', 'PATCH'], true);
    }

    /** @internal */
    public static function userPath(string $user): string
    {
        return '/v1/users/' . self::encoded($user);
    }

    /** @internal */
    public static function groupPath(string $group): string
    {
        return '/v1/groups/' . self::encoded($group);
    }

    /** @internal What is null is left out. */
    public static function withQuery(string $path, array $fields): string
    {
        $query = http_build_query($fields, '', '&', PHP_QUERY_RFC3986);
        return $query === '' ? $path : "$path?$query";
    }

    private static function encoded(string $name): string
    {
        if (in_array($name, ['', '.', '..'], true)) {
            throw new InvalidArgumentException("\"$name\" can't be a name here: addresses have another meaning for it");
        }
        return rawurlencode($name);
    }

    private static function idempotency(?string $key): string
    {
        $key = $key ?? bin2hex(random_bytes(16));
        if (preg_match('/^[\x21-\x7e]+$/D', $key) !== 1) {
            throw new InvalidArgumentException('An idempotency key must be printable ASCII without spaces');
        }
        return "Idempotency-Key: $key";
    }

    /** The service reads it; what can't stand in a header is none. */
    private static function trace(?string $traceparent): array
    {
        return preg_match('/^[\x21-\x7e]+$/D', (string) $traceparent) === 1 ? ["Traceparent: $traceparent"] : [];
    }

    private static function onlyKnown(array $options, array $known): void
    {
        foreach (array_diff(array_keys($options), $known) as $name) {
            throw new InvalidArgumentException("There is no option \"$name\": the options are " . implode(', ', $known));
        }
    }
}

/** Named sets of users that the service keeps: `$userwire->groups`. Its calls throw what those of `Userwire` throw. */
final class UserwireGroups
{
    private Closure $call;

    /** @internal */
    public function __construct(Closure $call)
    {
        $this->call = $call;
    }

    /**
     * Makes these the users of the group, all of them in one step.
     *
     * @param string[] $users
     * @param int|null $ifVersion Only when the group is in this version, 0: when there is none; else UserwireRefused
     *   with the code `group_changed`.
     * @return array `added`, `removed`, `users`: how many it has now, and its `version`.
     */
    public function put(string $group, array $users, ?int $ifVersion = null): array
    {
        $headers = $ifVersion === null ? [] : ["If-Match: \"$ifVersion\""];
        return ($this->call)('PUT', Userwire::groupPath($group), ['users' => array_values($users)], $headers);
    }

    /** Adds users, at most 10,000. Answers as `put`. */
    public function add(string $group, array $users): array
    {
        return ($this->call)('PATCH', Userwire::groupPath($group), ['add' => array_values($users)], []);
    }

    /** Takes users out, at most 10,000. Answers as `put`. */
    public function remove(string $group, array $users): array
    {
        return ($this->call)('PATCH', Userwire::groupPath($group), ['remove' => array_values($users)], []);
    }

    /** How many are in it, and online: `users`, `online`, `sockets` or `nodes`, `version`, `epoch`. */
    public function get(string $group): array
    {
        return ($this->call)('GET', Userwire::groupPath($group), null, []);
    }

    /** A page of its users: `items`, each with `user` and `sockets`, and `next`, which is `$after` of the next page. */
    public function members(string $group, ?string $after = null, ?int $limit = null): array
    {
        $path = Userwire::withQuery(Userwire::groupPath($group) . '/users', ['after' => $after, 'limit' => $limit]);
        return ($this->call)('GET', $path, null, []);
    }

    /** Deletes the group. Returns how many users it had. */
    public function delete(string $group): int
    {
        return ($this->call)('DELETE', Userwire::groupPath($group), null, [])['users'];
    }

    /** The groups that a user is in, of those that the key may address. @return string[] */
    public function of(string $user): array
    {
        return ($this->call)('GET', Userwire::userPath($user) . '/groups', null, [])['groups'];
    }

    /** Takes a user out of all groups that the key may address. @return string[] Out of which. */
    public function leaveAll(string $user): array
    {
        return ($this->call)('DELETE', Userwire::userPath($user) . '/groups', null, [])['groups'];
    }
}

/** The service has said no, and would again: `problem` is its code, for programs, and the message says what to mend. */
final class UserwireRefused extends RuntimeException
{
    public int $status;
    /** Of the problem, such as `user_offline`; empty when something else than Userwire has answered. */
    public string $problem;

    public function __construct(int $status, string $problem, string $detail)
    {
        parent::__construct(rtrim("$detail ($status $problem", ' ') . ')', $status);
        $this->status = $status;
        $this->problem = $problem;
    }
}

/** Not reached or not ready, as often as it was tried. Whether the last try was carried out is not known. */
final class UserwireUnavailable extends RuntimeException
{
}
