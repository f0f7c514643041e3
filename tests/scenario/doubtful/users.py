from locust import FastHttpUser, task


class Buyer(FastHttpUser):
    @task
    def buy(self) -> None:
        self.client.get("/", headers={"x-user-id": "17"})
