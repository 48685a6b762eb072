# Sends a message by the Redis function: ruby send.rb alice '{"order":7}'
require "redis"

user, payload = ARGV
redis = Redis.new(url: ENV.fetch("REDIS_URL", "redis://127.0.0.1:6379"))
begin
  # Options follow the payload: "ttl", 60, "key", "order-7", "id", "o7", "expect", "online"
  sockets, seq, epoch, id = redis.call("FCALL", "userwire_send", 1, "userwire:{#{user}}", payload)
rescue Redis::CommandError => e
  abort "not sent: #{e.message}"
end
puts "sent to #{sockets} sockets, number #{seq} of #{epoch}: #{id}"
