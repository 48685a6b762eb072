--[[
Ends the connection of whoever sends a WebSocket message larger than allowed, in one frame or in many, before the
service has to put it together. For HAProxy 2.5 or newer:

    global
      lua-load websocket_limit.lua
    frontend ...
      filter lua.websocket-limit 1048576      # bytes a message may have

Looks at the heads of frames only, and only at those from the client.
]]

local Limit = { id = "WebSocket message limit", flags = filter.FLT_CFG_FL_HTX }
Limit.__index = Limit

function Limit:new()
  return setmetatable({
    max_bytes = self.max_bytes,
    head = "", -- of the next frame, as far as it has come
    left = 0, -- bytes of this frame that are still to come
    size = 0, -- of this message so far
  }, Limit)
end

function Limit:http_headers(_, message)
  local channel = message.channel
  if channel:is_resp() or not message:get_headers()["upgrade"] then return end
  filter.register_data_filter(self, channel)
  -- After the upgrade the bytes can't be read from the channel, but they can through this.
  self.message = message
end

-- Called for what follows the upgrade.
function Limit:tcp_payload()
  local at, count = 0, self.message:input()
  while at < count do
    if self.left > 0 then
      local step = math.min(self.left, count - at)
      self.left = self.left - step
      at = at + step
    else
      local bytes = self.message:body(at, math.min(self:head_length() - #self.head, count - at))
      self.head = self.head .. bytes
      at = at + #bytes
      -- An error is what ends the connection. It is logged, once for each.
      if #self.head == self:head_length() and not self:begin_frame() then error("message too large", 0) end
    end
  end
end

-- Bytes before the mask: 2, or more once those are there and say so.
function Limit:head_length()
  if #self.head < 2 then return 2 end
  local length = self.head:byte(2) & 0x7f
  return length < 126 and 2 or length == 126 and 4 or 10
end

-- Whether the frame may come.
function Limit:begin_frame()
  local kind, length = self.head:byte(1) & 0x0f, self.head:byte(2) & 0x7f
  if #self.head == 4 then length = string.unpack(">I2", self.head, 3) end
  if #self.head == 10 then length = string.unpack(">i8", self.head, 3) end
  if length < 0 or length > self.max_bytes then return false end
  if kind < 8 then -- no ping, pong or close, which may come in between
    self.size = (kind == 0 and self.size or 0) + length
    if self.size > self.max_bytes then return false end
  end
  local is_masked = self.head:byte(2) & 0x80 ~= 0
  self.left = length + (is_masked and 4 or 0)
  self.head = ""
  return true
end

core.register_filter("websocket-limit", Limit, function(limit, arguments)
  limit.max_bytes = assert(tonumber(arguments[1]), "filter lua.websocket-limit needs a number of bytes")
  return limit
end)
