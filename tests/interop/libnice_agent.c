/* A standard ICE agent for the interoperability tests: one libnice agent with one stream of one component, TCP only,
 * regular nomination, that is driven by lines.
 *
 *   libnice-agent controlling|controlled ADDRESS
 *
 * It prints                                     It reads
 *   credentials UFRAG PASSWORD                    credentials UFRAG PASSWORD
 *   candidate TCPTYPE IP PORT PRIORITY            candidate TCPTYPE IP PORT PRIORITY
 *   gathered                                      end                    no more candidates: begin the checks
 *   state STATE                                   send TEXT              one RFC 4571 frame on the selected pair
 *   selected LOCAL_IP PORT REMOTE_IP PORT         quit
 *   received TEXT
 *
 * What it is not: a user of what libnice finds; it sends one line when it is told to. End of input ends it. */

#include <agent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COMPONENT = 1, MAX_LINE = 512, LIFETIME_SECONDS = 60 };

static GMainLoop *loop;
static NiceAgent *agent;
static guint stream_id;
static GSList *remote_candidates;

static void fail (const char *what) { fprintf (stderr, "libnice-agent: %s\n", what); exit (2); }

static const char *tcptype_name (NiceCandidateTransport transport) {
  switch (transport) {
    case NICE_CANDIDATE_TRANSPORT_TCP_ACTIVE: return "active";
    case NICE_CANDIDATE_TRANSPORT_TCP_PASSIVE: return "passive";
    case NICE_CANDIDATE_TRANSPORT_TCP_SO: return "so";
    default: return "udp";
  }
}

static void print_address (const NiceAddress *address) {
  char text[NICE_ADDRESS_STRING_LEN];
  nice_address_to_string (address, text);
  printf (" %s %u", text, nice_address_get_port (address));
}

static void print_description (void) {
  gchar *ufrag, *password;
  if (!nice_agent_get_local_credentials (agent, stream_id, &ufrag, &password)) fail ("no credentials");
  printf ("credentials %s %s\n", ufrag, password);
  g_free (ufrag);
  g_free (password);
  GSList *candidates = nice_agent_get_local_candidates (agent, stream_id, COMPONENT);
  for (GSList *at = candidates; at; at = at->next) {
    const NiceCandidate *candidate = at->data;
    printf ("candidate %s", tcptype_name (candidate->transport));
    print_address (&candidate->addr);
    printf (" %u\n", candidate->priority);
  }
  g_slist_free_full (candidates, (GDestroyNotify) nice_candidate_free);
  printf ("gathered\n");
}

static void on_gathered (NiceAgent *of, guint stream, gpointer data) { print_description (); }

static void on_state (NiceAgent *of, guint stream, guint component, guint state, gpointer data) {
  printf ("state %s\n", nice_component_state_to_string (state));
}

static void on_selected (NiceAgent *of, guint stream, guint component, NiceCandidate *local, NiceCandidate *remote,
    gpointer data) {
  printf ("selected");
  print_address (&local->addr);
  print_address (&remote->addr);
  printf ("\n");
}

static void on_received (NiceAgent *of, guint stream, guint component, guint len, gchar *bytes, gpointer data) {
  printf ("received %.*s\n", (int) len, bytes);
}

static void add_remote (const char *tcptype, const char *ip, unsigned port, unsigned priority) {
  NiceCandidate *candidate = nice_candidate_new (NICE_CANDIDATE_TYPE_HOST);
  if (strcmp (tcptype, "active") == 0) candidate->transport = NICE_CANDIDATE_TRANSPORT_TCP_ACTIVE;
  else if (strcmp (tcptype, "passive") == 0) candidate->transport = NICE_CANDIDATE_TRANSPORT_TCP_PASSIVE;
  else if (strcmp (tcptype, "so") == 0) candidate->transport = NICE_CANDIDATE_TRANSPORT_TCP_SO;
  else fail ("unknown tcptype");
  if (!nice_address_set_from_string (&candidate->addr, ip)) fail ("not an address");
  nice_address_set_port (&candidate->addr, port);
  candidate->stream_id = stream_id;
  candidate->component_id = COMPONENT;
  candidate->priority = priority;
  g_snprintf (candidate->foundation, sizeof candidate->foundation, "%u", g_slist_length (remote_candidates) + 1);
  remote_candidates = g_slist_append (remote_candidates, candidate);
}

static void obey (char *line) {
  char first[MAX_LINE], second[MAX_LINE];
  unsigned port, priority;
  line[strcspn (line, "\r\n")] = 0;
  if (sscanf (line, "credentials %511s %511s", first, second) == 2) {
    if (!nice_agent_set_remote_credentials (agent, stream_id, first, second)) fail ("credentials not taken");
  } else if (sscanf (line, "candidate %511s %511s %u %u", first, second, &port, &priority) == 4) {
    add_remote (first, second, port, priority);
  } else if (strcmp (line, "end") == 0) {
    if (nice_agent_set_remote_candidates (agent, stream_id, COMPONENT, remote_candidates) < 0)
      fail ("candidates not taken");
  } else if (strncmp (line, "send ", 5) == 0) {
    if (nice_agent_send (agent, stream_id, COMPONENT, strlen (line + 5), line + 5) < 0) fail ("not sent");
  } else if (strcmp (line, "quit") == 0) {
    g_main_loop_quit (loop);
  } else {
    fail ("unknown line");
  }
}

static gboolean on_line (GIOChannel *input, GIOCondition condition, gpointer data) {
  gchar *line = NULL;
  GIOStatus status = g_io_channel_read_line (input, &line, NULL, NULL, NULL);
  if (status == G_IO_STATUS_NORMAL) obey (line);
  else if (status != G_IO_STATUS_AGAIN) g_main_loop_quit (loop);
  g_free (line);
  return TRUE;
}

static gboolean on_end_of_life (gpointer data) { fail ("nobody ended it in time"); return FALSE; }

int main (int argc, char **argv) {
  NiceAddress address;
  if (argc != 3 || !nice_address_set_from_string (&address, argv[2])) fail ("controlling|controlled ADDRESS");
  setvbuf (stdout, NULL, _IOLBF, 0);
  loop = g_main_loop_new (NULL, FALSE);
  agent = nice_agent_new_full (g_main_loop_get_context (loop), NICE_COMPATIBILITY_RFC5245,
      NICE_AGENT_OPTION_REGULAR_NOMINATION);
  g_object_set (agent, "ice-udp", FALSE, "ice-tcp", TRUE, "upnp", FALSE,
      "controlling-mode", strcmp (argv[1], "controlling") == 0, NULL);
  if (!nice_agent_add_local_address (agent, &address)) fail ("address not taken");
  g_signal_connect (agent, "candidate-gathering-done", G_CALLBACK (on_gathered), NULL);
  g_signal_connect (agent, "component-state-changed", G_CALLBACK (on_state), NULL);
  g_signal_connect (agent, "new-selected-pair-full", G_CALLBACK (on_selected), NULL);

  stream_id = nice_agent_add_stream (agent, COMPONENT);
  /* Without a receive callback libnice never reads its sockets, so that no check is ever answered. */
  nice_agent_attach_recv (agent, stream_id, COMPONENT, g_main_loop_get_context (loop), on_received, NULL);
  GIOChannel *input = g_io_channel_unix_new (0);
  g_io_channel_set_flags (input, G_IO_FLAG_NONBLOCK, NULL);
  g_io_add_watch (input, G_IO_IN | G_IO_HUP, on_line, NULL);
  g_timeout_add_seconds (LIFETIME_SECONDS, on_end_of_life, NULL);
  if (!nice_agent_gather_candidates (agent, stream_id)) fail ("nothing gathered");

  g_main_loop_run (loop);
  g_object_unref (agent);
  g_slist_free_full (remote_candidates, (GDestroyNotify) nice_candidate_free);
  return 0;
}
