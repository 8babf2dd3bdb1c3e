-- Stands before the scripts of streams: what the server refuses is told with the command's name.

-- Calls a command as redis.pcall does. Only from 7.2 on the server says itself which command it
-- refuses to its user.
local function try(command, ...)
  local reply = redis.pcall(command, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(reply.err, "can't run this command", 1, true) then return reply end
  local name = command == 'XINFO' and 'xinfo|stream' or string.lower(command)
  return {err = reply.err .. " (the '" .. name .. "' command)"}
end

-- Such a call each command refuses itself, with nothing done, once the server has let it through.
local impossible = {XADD = {'no-id', 'f', 'v'}, HSET = {'f', 'v', 'f'}, SET = {'v', 'PX', 'never'}}

-- Returns the error with which the server would refuse a command to this user, nothing done;
-- nothing where it would not.
local function refusal(command, key, ...)
  if redis.acl_check_cmd then
    if redis.acl_check_cmd(command, key, ...) then return nil end
    return try(command, key, ...)
  end
  -- Before 7.0 there is no other way to ask.
  local reply = try(command, key, unpack(impossible[command]))
  if string.find(reply.err, "can't run this command", 1, true) then return reply end
end
