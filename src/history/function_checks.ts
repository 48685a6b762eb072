/**
 * Lua that checks what a stranger hands to the Redis function, as the HTTP API checks it: names, options and payloads. Each
 * piece answers with a fault, a sentence that says what to do, or with nothing.
 */

/**
 * `is_utf8(text)`. Each character of several bytes becomes a space, so that what stands before and after it stays apart; what
 * is left of them then is none.
 */
const UTF8 = String.raw`
local LONG_CHARACTERS = {'[\194-\223][\128-\191]', '\224[\160-\191][\128-\191]', '[\225-\236\238\239][\128-\191][\128-\191]',
  '\237[\128-\159][\128-\191]', '\240[\144-\191][\128-\191][\128-\191]', '[\241-\243][\128-\191][\128-\191][\128-\191]',
  '\244[\128-\143][\128-\191][\128-\191]'}
local function is_utf8(text)
  if not string.find(text, '[\128-\255]') then return true end
  for _, character in ipairs(LONG_CHARACTERS) do text = string.gsub(text, character, ' ') end
  return not string.find(text, '[\128-\255]')
end
`;

/**
 * `json_fault(text)`. What cjson refuses is no JSON, or nests deeper than anybody needs. But it takes more than JSON: numbers
 * as 01, 1., 0x10, NaN and -inf, and line breaks within strings. It can be told not to, for all scripts of this Redis from
 * then on, ours or not. So what remains without the strings is looked at here.
 */
const JSON_TEXT = String.raw`
local NO_NUMBERS = {'[^%deE.+%-]%-?0%d', '%.%D', '%D%.', '[^eE]%+', '%D[eE]', '[eE][+-]?[^%d+-]', '%-%D'}
local function json_fault(text)
  if text == '' then return 'it is empty' end
  -- Anchored, a pattern is looked for once, not from each character on.
  local is_plain = string.find(text, '^[ -~]*$')
  if not is_plain then
    if string.find(text, '[%z\1-\8\11\12\14-\31]') then return 'it has a control character' end
    if not is_utf8(text) then return 'it is not valid UTF-8' end
  end
  local is_read, why = pcall(cjson.decode, text)
  if not is_read then return tostring(why) end
  local rest = text
  if string.find(rest, '\\', 1, true) then rest = string.gsub(rest, '\\.', '') end
  rest = string.gsub(rest, is_plain and '%b""' or '"[^"\1-\31]*"', '')
  -- Most have nothing but whole numbers.
  if string.find(rest, '^[%d%s%[%]{},:]*$') and not string.find(rest, '0%d') then return nil end
  if string.find(rest, '"', 1, true) then return 'a string has a line break or a tab: write \\n or \\t' end
  if string.find(rest, '%l') then
    rest = string.gsub(string.gsub(string.gsub(rest, 'true', '0'), 'false', '0'), 'null', '0')
    if string.find(rest, '^[%d%s%[%]{},:]*$') and not string.find(rest, '0%d') then return nil end
  end
  if not string.find(rest, '^[%d%s%[%]{},:eE.+%-]*$') then return 'a number is not in decimal' end
  rest = ' ' .. rest .. ' '
  for i = 1, #NO_NUMBERS do
    if string.find(rest, NO_NUMBERS[i]) then return 'a number is not written as JSON writes them' end
  end
end
`;

/** `name_fault(name)`, of the name of a user's channel: the rules of `parseUsername`, but for the length of a prefix. */
const NAME = String.raw`
local WHITE_SPACE = {'[%z\1-\32\127{}]', '\194[\128-\160]', '\225\154\128', '\226\128[\128-\138\168\169\175]', '\226\129\159',
  '\227\128\128', '\239\187\191'}
local function name_fault(name)
  if #name > 256 then return 'it has ' .. #name .. ' bytes: a username has at most 128' end
  -- Visible ASCII without braces, as most are.
  if not string.find(name, '^[!-z|~]+$') then
    if not is_utf8(name) or string.find(name, '\239\191\189', 1, true) then return 'it is not valid UTF-8' end
    for _, space in ipairs(WHITE_SPACE) do
      if string.find(name, space) then return 'it holds white space, a control character or a brace' end
    end
  end
  if name == '.' or name == '..' then return 'it is one or two dots' end
  if string.find(name, '^userwire:') or string.find(name, '^__') then
    return 'names that begin with "userwire:" or "__" are reserved'
  end
end
`;

/** `options_of(argv)`: what stands behind the payload, as a table; or nothing and a fault. */
const OPTIONS = String.raw`
local function shown(text) return '"' .. string.gsub(string.sub(text, 1, 40), '[^\32-\126]', '?') .. '"' end
-- As readTraceParent reads it: what is none is left out.
local function trace_parent(value)
  local version, trace, span, flags, more =
    string.match(value, '^([%da-f][%da-f])%-([%da-f]+)%-([%da-f]+)%-([%da-f][%da-f])(.*)$')
  if not version or version == 'ff' or #trace ~= 32 or #span ~= 16 then return '' end
  if not string.find(trace, '[^0]') or not string.find(span, '[^0]') then return '' end
  if version == '00' then return more == '' and value or '' end
  if more ~= '' and string.sub(more, 1, 1) ~= '-' then return '' end
  return '00-' .. trace .. '-' .. span .. '-0' .. tonumber(flags, 16) % 2
end
local OPTIONS = {
  ttl = function(value)
    local seconds = string.find(value, '^%d+%.?%d*$') and tonumber(value)
    return seconds and seconds > 0 and seconds <= 2592000 and math.max(1, math.floor(seconds * 1000 + 0.5)),
      'must be a number of seconds above 0, at most 2592000'
  end,
  key = function(value)
    return #value <= 128 and string.find(value, '^[\33-\126]+$') and value,
      'must have 1 to 128 visible ASCII characters without spaces'
  end,
  id = function(value)
    return #value <= 64 and string.find(value, '^[%w_.:-]+$') and value, 'must have 1 to 64 letters, digits or . _ : -'
  end,
  expect = function(value) return value == 'online' and value, 'must be online' end,
  as = function(value)
    return (value == 'json' or value == 'text' or value == 'base64') and value, 'must be json, text or base64'
  end,
  traceparent = trace_parent,
}
local function options_of(argv)
  local options = {}
  for i = 2, #argv, 2 do
    local name = string.lower(argv[i])
    local read = OPTIONS[name]
    if not read then return nil, 'there is no option ' .. shown(argv[i]) .. ': there are ttl, key, id, expect, as and traceparent' end
    if not argv[i + 1] then return nil, 'the option ' .. name .. ' has no value: options and values come in pairs' end
    local value, rule = read(argv[i + 1])
    if not value then return nil, 'the option ' .. name .. ' ' .. rule .. ': it is ' .. shown(argv[i + 1]) end
    options[name] = value
  end
  return options
end
`;

/**
 * `data_of(payload, as)`: what goes into the frame as `data`, the letter of the envelope's kind, and its field for the
 * encoding; or nothing and a fault.
 */
const DATA = String.raw`
local function data_of(payload, as)
  local bytes = as == 'base64' and #payload / 4 * 3 or #payload
  if bytes > MAX_BYTES then
    return nil, 'the payload has ' .. bytes .. ' bytes of at most ' .. MAX_BYTES .. ': raise USERWIRE_MAX_BODY_BYTES and load ' ..
      'the functions again, or send a reference to it'
  elseif as == 'text' then
    if is_utf8(payload) then return cjson.encode(payload), 't', '' end
    return nil, 'the payload is not valid UTF-8: send it in base64, with the option as base64'
  elseif as == 'base64' then
    if #payload % 4 == 0 and string.find(payload, '^[%w+/]*=?=?$') then return '"' .. payload .. '"', 'b', ',"enc":"base64"' end
    return nil, 'the payload is not base64'
  end
  local fault = json_fault(payload)
  if not fault then return payload, 'j', '' end
  return nil, 'the payload is not JSON: ' .. fault .. '; correct it, or send it with the option as text'
end
`;

/** All of them; they read `MAX_BYTES`. */
export const CHECKS = UTF8 + JSON_TEXT + NAME + OPTIONS + DATA;
