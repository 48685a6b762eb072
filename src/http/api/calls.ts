/** All calls of the HTTP API, in the order of the document. */
import { batch } from "./batch.ts";
import { broadcast } from "./broadcast.ts";
import type { Call } from "./call.ts";
import { closeConnection, closeConnections, connections } from "./connections.ts";
import { drainState, startDrain, stopDrain } from "./drain.ts";
import { doctor } from "./doctor.ts";
import { openStream, postToStream } from "./events.ts";
import { groupSend } from "./group_messages.ts";
import { changeGroup, deleteGroup, group, members, putGroup, putMember, removeMember } from "./groups.ts";
import { history } from "./history.ts";
import { logLevel, setLogLevel } from "./log_level.ts";
import { nodes } from "./nodes.ts";
import { health, metrics, ready } from "./ops.ts";
import { revocations } from "./revocations.ts";
import { send } from "./send.ts";
import { stats } from "./stats.ts";
import { tickets } from "./tickets.ts";
import { leaveGroups, userGroups } from "./user_groups.ts";
import { online, user, userHead } from "./users.ts";

export const CALLS: readonly Call[] = [
  send,
  batch,
  broadcast,
  user,
  userHead,
  online,
  health,
  ready,
  metrics,
  history,
  connections,
  closeConnections,
  closeConnection,
  nodes,
  stats,
  doctor,
  openStream,
  postToStream,
  groupSend,
  group,
  putGroup,
  changeGroup,
  deleteGroup,
  members,
  putMember,
  removeMember,
  userGroups,
  leaveGroups,
  tickets,
  revocations,
  startDrain,
  drainState,
  stopDrain,
  logLevel,
  setLogLevel,
];
