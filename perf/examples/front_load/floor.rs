//! What the harness itself adds: the same events, written straight to the clients.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{MissedTickBehavior, interval},
};

use crate::{
    client::ID,
    times::{Pace, Times},
};

/// Starts a server of such events; its address.
pub(crate) async fn start(times: Arc<Times>, pace: Pace) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(answer(connection, times.clone(), pace));
        }
    });
    Ok(address)
}

async fn answer(mut connection: TcpStream, times: Arc<Times>, pace: Pace) -> Option<()> {
    const EVENT: &[u8] = b"data: {\"id\":\"chatcmpl-load\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\
        \"choices\":[{\"index\":0,\"delta\":{\"content\":\" a\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
    let mut request = vec![0; 4096];
    let read = connection.read(&mut request).await.ok()?;
    let request = String::from_utf8_lossy(&request[..read]);
    let stream: usize = request.split_once(ID)?.1.split('\r').next()?.parse().ok()?;
    connection.set_nodelay(true).ok()?;
    let mut ticks = interval(pace.each);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for token in 0..pace.tokens {
        ticks.tick().await;
        times.given(stream, token);
        connection.write_all(EVENT).await.ok()?;
    }
    Some(())
}
