import { useState } from "react";
import { useMessages, useUserwire } from "userwire/react";

const USERWIRE = import.meta.env.VITE_USERWIRE ?? "http://127.0.0.1:8765";

interface Order {
  order: number;
}

/** Called before each attempt to connect: a token ends after some minutes, and a client stays for hours. */
async function token(): Promise<string> {
  const response = await fetch("/api/token");
  if (!response.ok) throw new Error(`No token: the backend answers ${response.status}`);
  return await response.text();
}

function Orders({ user }: { user: string }) {
  const { state, error } = useUserwire(USERWIRE, { token, account: user });
  const messages = useMessages<Order>({ limit: 20 });
  return (
    <>
      <p>
        {user} is {state}
      </p>
      {error && <p role="alert">{error.message}</p>}
      <ul>
        {messages.map(({ id, data }) => <li key={id}>order {data.order}</li>)}
      </ul>
    </>
  );
}

export default function App() {
  const [user, setUser] = useState<string>();

  async function logIn(form: FormData) {
    const name = String(form.get("name"));
    const response = await fetch("/api/login", { method: "POST", body: name });
    if (response.ok) setUser(name);
  }

  if (user === undefined) {
    return (
      <form action={logIn}>
        <input name="name" placeholder="Who are you?" /> <button>Log in</button>
      </form>
    );
  }
  return (
    <main>
      <Orders user={user} />
      <button onClick={() => fetch("/api/order", { method: "POST" })}>Order something</button>{" "}
      <button onClick={() => setUser(undefined)}>Log out</button>
    </main>
  );
}
