import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// In production one server has both, the page and /api; while you develop Vite passes the calls on.
const backend = process.env.BACKEND ?? "http://127.0.0.1:3000";

export default defineConfig({
  plugins: [react()],
  server: { proxy: { "/api": backend } },
  preview: { proxy: { "/api": backend } },
});
